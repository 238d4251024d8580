"""The tables and figures of the paper, each from one command: which runs, and what is made of them."""
