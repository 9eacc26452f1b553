"""A recipe as a request makes it, for tests that look at recipes and train nothing."""

from __future__ import annotations

from dataclasses import replace

from longtail import methods
from longtail.data import LongTailData
from longtail.request import Task, build_recipe, make_config
from longtail.training.budget import Context, budget_for
from longtail.training.recipe import Recipe
from longtail.training.sharing import shared_stages


def recipe_of(name: str, data: LongTailData, protocol: str = "quick", **options: object) -> Recipe:
    """Return the recipe of a method on a data set."""
    config = make_config(
        data,
        name,
        protocol=protocol,
        seed=0,
        backbone=None,
        precision="fp32",
        eval_every=None,
        options=options,
    )
    return build_recipe(config, Task.of(data))


def recipe_on(dataset: str, protocol: str, name: str, data: LongTailData, **options: object) -> Recipe:
    """Return the recipe of a method on a data set that need not be here; ``data`` lends its normalisation."""
    plain = Task.of(data).plain_transforms()
    budget = budget_for(dataset, protocol)
    if protocol == "published":
        budget = replace(budget, **methods.published_budget(name, dataset))
    return methods.build(name, Context((500, 50, 5), protocol, budget, plain, plain, dataset=dataset), options)


def lent(name: str, by: str, data: LongTailData, protocol: str = "quick", **options: object) -> int:
    """Return how many stages of a method a run of another one, without options, trains too."""
    return shared_stages(recipe_of(name, data, protocol, **options), recipe_of(by, data, protocol), "small")
