"""The constructors of modules and named tuples, which the reference cannot see in the source."""

import griffe

WITH_FIELDS = {"eqx.Module", "NamedTuple", "dfx.AbstractAdjoint"}
"""Bases whose annotated fields are the arguments of the constructor."""


class Constructors(griffe.Extension):
    """Adds a signature to classes whose fields are the arguments of their constructor."""

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        """Adds `__init__` with one parameter for each field."""
        if "__init__" in cls.members or WITH_FIELDS.isdisjoint(map(str, cls.bases)):
            return
        fields = [x for x in cls.members.values() if x.is_attribute and x.annotation and "property" not in x.labels]
        kind = griffe.ParameterKind.positional_or_keyword
        own = [griffe.Parameter(x.name, annotation=x.annotation, kind=kind, default=_default(x.value)) for x in fields]
        parameters = griffe.Parameters(griffe.Parameter("self", kind=kind), *own)
        cls.set_member("__init__", griffe.Function("__init__", parameters=parameters, parent=cls))


def _default(value):
    """The default of a field: the value itself, or what `eqx.field` or `param` is given."""
    if not isinstance(value, griffe.ExprCall) or value.function.canonical_name not in ("field", "param"):
        return value
    named = {x.name: x.value for x in value.arguments if isinstance(x, griffe.ExprKeyword)}
    first = [x for x in value.arguments if not isinstance(x, griffe.ExprKeyword)]
    return named.get("default", first[0] if first else None)
