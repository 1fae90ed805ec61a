"""Make a bank of anatomies for training: procedural ones, and slices of label volumes.

python training/build_bank.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.bank import main

if __name__ == "__main__":
    run_script(main)
