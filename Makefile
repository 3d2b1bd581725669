# Two commands are all that a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

# Sets everything up and runs the main job on the embedded default.
demo: $(VENV)/.cpu
	@mkdir -p demo
	$(BIN)/onnxcomp optimize calibration/fashion_mnist/fashion_cnn.onnx -o demo/fashion_cnn.opt.onnx --force \
	  --calibration "npz:calibration/fashion_mnist/calibration.npz?map=x:image&layout=nhwc&scale=255" \
	  --eval "npz:calibration/fashion_mnist/test.npz?map=x:image&layout=nhwc&scale=255" \
	  --report demo/report.html --report demo/report.json --report demo/report.md

# Sets everything up and passes the tests.
test: $(VENV)/.dev
	$(BIN)/ruff check onnxcomp tests benchmarks calibration
	$(BIN)/ruff format --check onnxcomp tests benchmarks calibration
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -q

$(VENV)/.cpu: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[cpu,images]"
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(BIN)/pip install -q -c constraints.txt -e ".[cpu,images,dev]"
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
