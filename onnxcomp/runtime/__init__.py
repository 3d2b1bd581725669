"""ONNX Runtime, which only this room imports: host, providers, sessions, limited child process, latencies, audit."""
