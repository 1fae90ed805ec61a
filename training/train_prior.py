"""Train or fine-tune the text-conditioned diffusion prior.

accelerate launch training/train_prior.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.prior import main

if __name__ == "__main__":
    run_script(main)
