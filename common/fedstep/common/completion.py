"""`fedstep completion`: what a shell needs to complete fedstep's commands and options."""

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(fedstep completion bash)"     in ~/.bashrc',
    "zsh": 'eval "$(fedstep completion zsh)"      in ~/.zshrc, after compinit',
    "fish": "fedstep completion fish | source      in ~/.config/fish/config.fish",
}


@click.command(
    epilog="\b\n" + "\n".join(_HOW.values()),
)
@click.argument("shell", type=click.Choice([*_HOW]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that has SHELL complete fedstep's commands and options with the tab key."""
    made = get_completion_class(shell)
    assert made is not None
    print(made(ctx.find_root().command, {}, "fedstep", "_FEDSTEP_COMPLETE").source())
