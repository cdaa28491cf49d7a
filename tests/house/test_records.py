"""Classes with many fields take them by keyword: positional arguments of one type are easily mixed up."""

import importlib

import attrs
from support.documents import ROOT

BY_POSITION = 4


def test_no_class_takes_more_than_four_fields_by_position() -> None:
    too_many = set()
    for path in sorted((ROOT / "hub").rglob("*.py")):
        if path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for member in vars(importlib.import_module(name)).values():
            if isinstance(member, type) and attrs.has(member):
                fields = [field for field in attrs.fields(member) if field.init and not field.kw_only]
                if len(fields) > BY_POSITION:
                    too_many.add(f"{member.__module__}.{member.__qualname__}")
    assert too_many == set()
