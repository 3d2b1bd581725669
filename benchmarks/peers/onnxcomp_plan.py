"""Static INT8 of onnxcomp without proofs and latencies: what the other tools do.

python onnxcomp_plan.py MODEL CALIBRATION OUTPUT
"""

from __future__ import annotations

import sys

from onnxcomp.driver.options import Options
from onnxcomp.driver.workbench import prepare
from onnxcomp.evaluate.gates import Gates
from onnxcomp.model.save import save_model
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.quantize import Quantize


def main() -> None:
    model, calibration, output = sys.argv[1:]
    bench = prepare(model, Options(calibration=calibration, threads=2), Gates())
    step = Quantize(QuantizeConfig(correct="none"))
    plan = step.plan(bench.simplified, bench.context)
    save_model(step.apply(bench.simplified, plan, bench.context), output, overwrite=True)


if __name__ == "__main__":
    main()
