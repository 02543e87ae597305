"""Velocities on a manifold: tangent vectors, whatever a network gives."""

from collections.abc import Callable
from typing import Any

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Output
from fmjax.errors import InputError
from fmjax.manifolds.base import Manifold


def in_tangent_space(function: Callable[..., Any], manifold: Manifold) -> Callable[..., Any]:
    """A network, or a velocity, whose result is projected to the tangent space at x.

    to_tangent(x, function(...)): a network gives numbers in the space around the manifold, such as
    three for a point of the sphere, and the part of them that leaves the manifold is dropped. It
    goes inside of guidance and outside of it; of an `fmjax.conventions.Output` the velocity alone
    is projected.

    Args:
        function: ``apply_fn(params, x, t, labels)`` or ``velocity(x, t, labels)``, called with all
            of its arguments.
        manifold: where x is.

    Returns:
        The same kind of function, with tangent vectors at x built as x.

    Raises:
        InputError: the function is none, or the manifold; calling the result raises it when what
            the function gives is not shaped as x.
    """
    check_methods("the function", function, such_as="lambda params, x, t, labels: ...")
    check_methods("the manifold", manifold, "exp", "to_tangent", such_as="manifolds.Sphere(2)")

    def tangent(*args: Any) -> Any:
        if len(args) not in (3, 4):
            raise InputError(
                f"a function in the tangent space takes (params, x, t, labels) or (x, t, labels); "
                f"got {len(args)} arguments. Write labels=None in its place where there are none."
            )
        x, found = args[-3], function(*args)
        parts = found.parts if isinstance(found, Output) else {"velocity": found}
        if "velocity" not in parts:
            return found
        check_returned("the network", parts["velocity"], "x", x)
        u = manifold.to_tangent(x, parts["velocity"])
        return Output(**parts | {"velocity": u}) if isinstance(found, Output) else u

    return tangent
