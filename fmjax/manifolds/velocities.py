"""Velocities on a manifold: what a network sees of points, and tangent vectors of what it gives."""

from collections.abc import Callable
from typing import Any

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods, check_name
from fmjax.conventions import Output
from fmjax.errors import InputError
from fmjax.manifolds.base import Manifold


def in_ambient_space(
    apply_fn: Callable[..., Any], manifold: Manifold, prediction: str = "velocity"
) -> Callable[..., Any]:
    """A network of points in the space around a manifold as one of points of the manifold.

    It sees `Manifold.ambient` of x, such as the cosines and sines of angles, and what it gives in
    that space is taken back: of a velocity the part along the manifold's coordinates, of a point
    the numbers of the point. `in_tangent_space`, or a projection, does the rest. On all manifolds
    but a `Torus` and a `FlatProduct` with one it is the network itself.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``, x (batch, ..., *ambient_shape), of arrays
            shaped as x.
        manifold: whose points are one array.
        prediction: ``"velocity"``, or ``"x1"``, a point.

    Returns:
        ``apply_fn(params, x, t, labels)`` of points x (batch, ..., *shape). Of an
        `fmjax.conventions.Output` the parts shaped as x are taken back.

    Raises:
        InputError: the function or the manifold is none, or the prediction is another; calling the
            result raises it when what the function gives is not shaped as it is to be.
    """
    check_methods("apply_fn", apply_fn, such_as="lambda params, x, t, labels: ...")
    check_methods("the manifold", manifold, "ambient", "to_tangent", such_as="manifolds.Torus(2)")
    check_name("prediction on a manifold", prediction, ("velocity", "x1"))
    if manifold.ambient_shape == manifold.shape:
        return apply_fn

    def function(params: Any, x: Any, t: Any, labels: Any = None) -> Any:
        seen = manifold.ambient(x)
        found = apply_fn(params, seen, t, labels)

        def back(value: Any) -> Any:
            check_returned("the network", value, "x in the space around the manifold", seen)
            if prediction == "velocity":
                return manifold._pull_back(x, value)
            return manifold._from_ambient(value)

        if not isinstance(found, Output):
            return back(found)
        shaped = {k: v for k, v in found.parts.items() if k != "divergence"}
        return Output(**found.parts | {k: back(v) for k, v in shaped.items()})

    return function


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
