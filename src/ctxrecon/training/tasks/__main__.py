"""``python -m ctxrecon.training.tasks``, for accelerate's launcher."""

from functools import partial

from ctxrecon.training.script import run_script
from ctxrecon.training.tasks import main

if __name__ == "__main__":
    run_script(partial(main, program="python -m ctxrecon.training.tasks"))
