"""A checkpoint's model card: `python eval/model_card.py FOLDER [--results FILE ...] [--push_to ORG/REPO]`."""

from open_r1.common.errors import run_command
from open_r1.evaluation.reporting.model_card import main

if __name__ == "__main__":
    run_command(main)
