"""Prints the body of a URL by one of two libraries."""

import importlib
import sys

answer = importlib.import_module(sys.argv[1]).get(sys.argv[2])
answer.raise_for_status()
print(answer.text, end="")
