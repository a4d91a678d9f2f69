"""Names that users give to specs, profiles and tasks, and why some cannot be: the one gate for all of them."""

from __future__ import annotations

from ..files import is_safe_name
from ..tasks.metrics import OVERALL

FILES = ("costs", "significance", "leaderboard")
"""Files of a profile's results beside those of specs, without their endings."""

FOLDERS = ("published", "report.html", "readme.md")
"""What lies in `results/` beside the folders of profiles."""

COLUMNS = (OVERALL, "name", "what", "members", "id", "kind", "parameters", "seconds", "inference", "seeds",
           "profile", "suite", "sha256", "split")
"""Columns of tables that are no task's."""

MODULE = frozenset((
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear", "compile",
    "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "load_state_dict", "modules",
    "mtia", "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "pop",
    "register_backward_hook", "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter", "register_state_dict_post_hook",
    "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule", "share_memory",
    "state_dict", "to", "to_empty", "train", "training", "type", "update", "values", "xpu", "zero_grad",
))
"""Attributes of torch's `ModuleDict`, which cannot hold a head of such a name."""

LETTERS = "letters, digits and . _ - = , + @ only, and at most 128 of them"


def wrong_spec_name(name: object) -> tuple[str, str] | None:
    """Return why a spec cannot be called so and what to do; None where it can."""
    if not isinstance(name, str) or not is_safe_name(name):
        return f"`{name}` cannot be a name", f"a name has {LETTERS}"
    if name.lower() in FILES:
        return f"a spec cannot be called `{name}`: mtrun writes a file of that name beside the results", ""
    return None


def wrong_profile_name(name: str) -> str:
    """Return why a profile cannot be called so; empty where it can."""
    if not is_safe_name(name):
        return f"a name has {LETTERS}"
    return "results/ has something else of that name" if name.lower() in FOLDERS else ""


def wrong_task_name(name: str) -> tuple[str, str] | None:
    """Return why a task cannot be called so and what to do; None where it can."""
    if not is_safe_name(name) or set(name) & set(".,"):
        return f"`{name}` cannot be the name of a task", "a name has letters, digits and _ - = + @ only"
    if name.lower() in COLUMNS:
        return f"a task cannot be called `{name}`: tables have a column of that name", f"call it `{name}-task`"
    if name in MODULE or name.startswith("_"):
        return f"a task cannot be called `{name}`: PyTorch uses that name", f"call it `{name.strip('_') or 'my'}-task`"
    return None
