"""Build a bank of anatomies for training from procedural anatomies and label volumes.

python training/build_bank.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.bank import main

if __name__ == "__main__":
    run_script(main)
