"""The core knows no built-in plugin, except where a spec needs a default."""

from __future__ import annotations

import ast

from sources import CORE, files, module_of, tree

from mta_framework.registry import discover

NAMED = {
    "spec/alignment.py": {"attention", "proportional", "dsa", "hid"},  # defaults of the section alignment
    "spec/evaluation.py": {"rouge_l"},  # default of evaluation.metrics
    "spec/run.py": {"kl"},  # example of a base loss in the schema
    "spec/teacher.py": {"attention"},  # a field of the section teacher
    "spec/section.py": {"kl"},  # example of a plugin in the schema
    "cli/init.py": {"kl", "spacy_phrases"},  # what a new spec proposes
    "testing/plugin.py": {"spacy", "stanza"},  # libraries that no plugin may load when it is imported
}
"""File of the core -> names of built-in plugins, and packages of theirs, that are strings in it."""

OTHER_MEANINGS = {
    "ab": "mode of a file",
    "cka": "field of a record of layers",
    "code": "kind of a segment, and an element of HTML",
    "math": "kind of a segment",
    "none": "how spans overlap, how a loss is reduced, which turns are supervised",
    "words": "granularity",
}
"""Names that mean something else wherever they are a string in the core."""


def built_ins() -> set[str]:
    """Names of the plugins of this distribution, and of the packages that they depend on."""
    offers = [offer for family in discover().families.values() for named in family.values() for offer in named]
    plugins = [offer.plugin for offer in offers if offer.provider.startswith("mta-framework ")]
    return {name for plugin in plugins for name in (plugin.NAME, *plugin.PACKAGES)}


def test_core_never_names_the_package_of_the_built_in_plugins():
    assert not [module_of(path) for path in files(CORE) if "mta_plugins" in path.read_text(encoding="utf-8")]


def test_core_names_built_in_plugins_where_a_spec_has_a_default_and_nowhere_else():
    watched = built_ins() - set(OTHER_MEANINGS)
    assert {"kl", "spacy_phrases", "spacy", "rouge-score"} <= watched
    named: dict[str, set[str]] = {}
    for path in files(CORE):
        strings = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        if watched & strings:
            named[path.relative_to(CORE).as_posix()] = watched & strings
    assert named == NAMED
