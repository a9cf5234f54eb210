"""`tunechat recipes`: trainings to start from, and every key that a recipe may have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json
from .output import print_json, print_table

app = typer.Typer(help="Ready-made trainings: list, show, copy.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name from `tunechat recipes list`.")]


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the ready-made recipes."""
    from ...trainer.catalogue import ready_made

    found = ready_made()
    if json:
        print_json([{"name": recipe.name, "about": recipe.about} for recipe in found])
    else:
        print_table(("recipe", "for"), [(recipe.name, recipe.about) for recipe in found])


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Print a recipe as it can be saved; --json prints every key with its value, and which the data will choose."""
    from ...trainer.catalogue import find_ready_made

    recipe = find_ready_made(name)
    if not json:
        typer.echo(recipe.text, nl=False)
        return
    from ...trainer.recipe import auto_keys
    from ...trainer.recipe_file import parse_recipe

    made = parse_recipe(recipe.text, origin=name)
    values = made.model_dump(mode="json")
    chosen_later = sorted(auto_keys() - made.chosen)
    print_json({"name": name, "about": recipe.about, "recipe": values, "chosen_by_the_data": chosen_later})


@app.command("copy")
def copy(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Where to put it, such as recipe.yml.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a recipe to a file, to be changed and given to `tunechat train`."""
    from ...trainer.catalogue import find_ready_made
    from .placing import placed_file, write_synced

    recipe = find_ready_made(name)
    with placed_file(file, force=force) as staged:
        write_synced(staged, recipe.text.encode())
    typer.echo(f"wrote {file}", err=True)


@app.command("keys")
def keys(json: Json = False) -> None:
    """List every key of a recipe: what it takes, its default, what it does."""
    from ...trainer.reference import keys as all_keys

    columns = ("key", "values", "default", "meaning")
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in all_keys()])
    else:
        print_table(columns, all_keys())
