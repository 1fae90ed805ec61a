"""Train a k-space sampler together with a downstream task.

accelerate launch training/train_task.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.tasks import main

if __name__ == "__main__":
    run_script(main)
