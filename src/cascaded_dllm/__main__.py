"""`python -m cascaded_dllm`: the command `cdllm`, for where it is not on the path."""

from cascaded_dllm.cli.main import app

if __name__ == "__main__":
    app(prog_name="python -m cascaded_dllm")
