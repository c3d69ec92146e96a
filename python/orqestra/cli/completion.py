"""`orqestra completion`: what a shell needs to complete our commands and options."""

from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
# The variable by which the script asks the program for completions; click derives the same name.
VARIABLE: Final = "_ORQESTRA_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print the completion script for a shell.

    \b
      bash   eval "$(orqestra completion bash)"      in ~/.bashrc
      zsh    eval "$(orqestra completion zsh)"       in ~/.zshrc
      fish   orqestra completion fish | source       in ~/.config/fish/config.fish
    """
    script_class = get_completion_class(shell)
    assert script_class is not None
    root = context.find_root()
    click.echo(script_class(root.command, {}, str(root.info_name), VARIABLE).source())
