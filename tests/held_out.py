"""Which methods and modifiers learn from a development set, so that tests hold one out for them."""

NEED_DEV = frozenset({"da-meta", "l2rw", "meta-weight-net", "cb-finetune", "dev"})


def needs_dev(name: str) -> bool:
    """Return whether a part of ``method+modifier+...`` learns from a development set."""
    return bool(NEED_DEV & {*name.split("+")})
