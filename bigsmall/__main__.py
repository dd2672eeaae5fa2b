"""`python -m bigsmall`, the same as the command `bigsmall`."""

from bigsmall.cli import main

main()
