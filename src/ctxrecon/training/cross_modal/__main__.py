"""``python -m ctxrecon.training.cross_modal``, for accelerate's launcher."""

from functools import partial

from ctxrecon.training.cross_modal import main
from ctxrecon.training.script import run_script

if __name__ == "__main__":
    run_script(partial(main, program="python -m ctxrecon.training.cross_modal"))
