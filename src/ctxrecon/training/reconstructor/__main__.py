"""``python -m ctxrecon.training.reconstructor``, for accelerate's launcher."""

from functools import partial

from ctxrecon.training.reconstructor import main
from ctxrecon.training.script import run_script

if __name__ == "__main__":
    run_script(partial(main, program="python -m ctxrecon.training.reconstructor"))
