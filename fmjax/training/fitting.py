"""`fit`: what ``train.py`` does, for any network and any data."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.checks import check_methods
from fmjax.conventions import ApplyFn, Array
from fmjax.data.streams import as_stream
from fmjax.errors import InputError
from fmjax.first_process import say
from fmjax.training.batches import placed_batches
from fmjax.training.begin import Begin
from fmjax.training.fit_checks import check_data, check_functions
from fmjax.training.folder import PROFILE, Folder, opened, record_of
from fmjax.training.loop import Callback, Training, run_steps
from fmjax.training.mesh import DATA_PARALLEL, MeshSizes, make_mesh, row_shards
from fmjax.training.parallelism import Jit, Parallel, Pmap, check_divides, layout_over
from fmjax.training.progress import Log, Progress
from fmjax.training.settings import Settings, check_numbers
from fmjax.training.sharding import Rules, notes
from fmjax.training.signals import Stopped
from fmjax.training.state import TrainState
from fmjax.training.step import Batch, make_step
from fmjax.training.validation import held_out_batch, make_validation


def fit(
    apply_fn: ApplyFn,
    params: Any,
    data: Any,
    *,
    loss_fn: Callable,
    draw: Callable,
    optimizer: optax.GradientTransformation,
    steps: int,
    workdir: Path | str | Folder | None = None,
    mesh: Mesh | MeshSizes | None = None,
    callbacks: Sequence[Callback] = (),
    held_out: Any = None,
    batch_size: int = 128,
    seed: int = 0,
    ema: float | None = 0.9999,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
    log_every: int = 50,
    checkpoint_every: int = 500,
    val_every: int = 0,
    keep: int = 3,
    parallel: Parallel = "jit",
    rules: Rules = (),
    steps_per_call: int = 1,
    threads: int = 2,
    learning_rate: Callable[[Int[Array, ""]], Float[Array, ""]] | None = None,
    flops: int | None = None,
    profile: bool = False,
    log: Log | None = None,
) -> TrainState:
    """Trains a network on data until `steps`, over all devices, and goes on where it was stopped.

        state = fit(apply_fn, params, {"x": x, "labels": labels}, loss_fn=make_loss_fn(apply_fn),
                    draw=Draw(), optimizer=optax.adam(1e-3), steps=10_000, workdir="runs/mine")

    The k-th step takes the k-th batch and randomness that is a function of the seed and of k. A
    second call with the same workdir goes on from its newest checkpoint, and where batch k is a
    function of k too, which it is unless data is an iterator, gives the same bits as one call.

    With a workdir, the folder gets ``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and
    ``fit.json``, which remembers what decides the numbers; SIGTERM, SIGINT and SIGHUP end the
    training between two steps, after its state is saved. Without one, nothing is written.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``, a velocity or an `fmjax.conventions.Output`.
            It is checked against the data; of a network of two times give its
            `fmjax.conventions.diagonal`.
        params: its parameters, a pytree of floating-point arrays, which are copied; or
            ``init(key)``, which makes them, each device its own part; or a `TrainState` to go on
            from, which is used up, unless the workdir has a later one.
        data: an array x (n, ...), or ``{"x": x, "labels": labels, "x0": x0}``, the last two where
            there are any, each a pytree of arrays, and perhaps ``"weights"`` (n,), by which an
            epoch visits them; or anything with ``len(data)`` and ``data[k]``,
            one example in the same form, grain's sources among them; or an iterator of batches
            in the same form; or a `fmjax.data.streams.Stream`. x are floats, or tokens.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``, as `fmjax.make_loss_fn` gives.
            With an attribute ``noise`` it also gets ``noise=`` from the draw, with ``uses_target``
            also ``target_params=``, the average before the step, with ``uses_step`` its number.
        draw: ``draw(key, index, x1, labels=None, x0=None)``, an `fmjax.Draw` or any function that
            gives x0, x1, t and labels. One with a method ``on(layout)`` is asked for the draw of a
            step that is spread over devices.
        optimizer: the optax transformation.
        steps: until which step, from the first one on; it may grow from call to call.
        workdir: the folder of the training; None for none.
        mesh: the devices, from `fmjax.training.mesh.make_mesh`, or how many along each axis; None
            for all of them, each with a part of the batch.
        callbacks: each is called as ``callback(step, state)`` after every call of the compiled
            step. The next step overwrites the state: copy what is to stay. The time is left out of
            the speed in the log.
        held_out: examples in the same form as data, up to 512 of which give the held-out loss, at
            every checkpoint: of the averaged parameters, with the same noise and times each time.
        batch_size: examples in a step, over all devices and processes.
        seed: of init, of the order of the data and of every draw.
        ema: decay of the average of the parameters, reached after a warm-up; None keeps none.
        frozen: patterns of the parameters that stay as they are, such as ``("blocks/*",)``; see
            `fmjax.training.frozen`. The optimiser sees the others alone.
        accumulate: into how many parts a batch is split to save memory.
        log_every: steps from one line of the log to the next.
        checkpoint_every: steps from one checkpoint to the next; there is one at the end as well.
        val_every: steps from one held-out loss to the next, beside those at checkpoints; 0: none.
        keep: how many of the newest checkpoints stay, beside the one of lowest held-out loss.
        parallel: ``"jit"`` over the mesh, or ``"pmap"``.
        rules: by which a mesh with fsdp or tensor splits the parameters; see
            `fmjax.training.sharding`, which has one for parameters that no rule names.
        steps_per_call: steps in one call of the compiled program: more where they take under 10 ms.
        threads: how many batches are read at the same time.
        learning_rate: the optimiser's schedule, for the log.
        flops: operations of training on one example, for the utilisation in the log.
        profile: writes a trace of a few steps to the workdir's ``profile/``.
        log: ``log(step, values)`` takes the scalars of each line of the log as well, on the first
            process: ``lambda step, values: wandb.log(values, step=step)``.

    Returns:
        The state after the last step, ``params``, ``ema_params`` (None for ``ema=None``),
        ``opt_state`` and ``step``; at once where the workdir has it already.

    Raises:
        InputError: something does not fit, in one sentence, before any device works; or an iterator
            ended before the last step.
        FloatingPointError: a loss, a gradient or the state became NaN or infinite.
        Stopped: a signal came, and the state was saved; a ``KeyboardInterrupt``.

    Example:
        >>> apply_fn = lambda params, x, t, labels: jnp.broadcast_to(params, x.shape)
        >>> how = {"loss_fn": make_loss_fn(apply_fn), "draw": Draw(), "optimizer": optax.sgd(0.1)}
        >>> state = fit(apply_fn, jnp.zeros(2), np.ones((64, 2)), steps=100, batch_size=64, **how)
        >>> state.params.round(0)  # the mean of x1 - x0
        Array([1., 1.], dtype=float32)
    """
    settings = check_numbers(
        Settings(
            *(steps, batch_size, accumulate, steps_per_call, ema, seed),
            *(log_every, checkpoint_every, val_every, keep),
        )
    )
    _check_objects(apply_fn, loss_fn, draw, optimizer, callbacks, log)
    layout = _layout(mesh, parallel, settings.steps_per_call, rules)
    check_divides(batch_size, row_shards(layout.mesh), accumulate, "batch_size")
    if profile and workdir is None:
        raise InputError("profile=True writes its trace to a workdir: give workdir as well.")
    stream = as_stream(data, threads)
    validated = None if held_out is None else as_stream(held_out, threads, "held_out")
    begin = Begin(params, optimizer, layout, settings, frozen)
    step = make_step(
        loss_fn,
        _of_batch(draw, layout),
        optimizer,
        ema=settings.ema,
        accumulate=settings.accumulate,
        axis_name=layout.axis_name,
        learning_rate=learning_rate,
        frozen=frozen,
    )
    batch = check_data(stream, validated, settings)
    check_functions(apply_fn, loss_fn, _of_batch(draw), begin.abstract.params, batch)
    record = record_of(settings, begin.abstract.params, frozen)
    with opened(workdir, record, begin.abstract, keep) as folder:
        state = begin.state(folder, stream.exact)
        if int(state.step) >= steps:
            return layout.to_global(state)
        validate = None
        if validated is not None:
            examples = held_out_batch(validated)
            validate = make_validation(loss_fn, _of_batch(draw), examples, layout.mesh)
        training = Training(
            settings=settings,
            layout=layout,
            step=step,
            batches=partial(placed_batches, stream, layout, settings),
            validate=validate,
            callbacks=tuple(callbacks),
            checkpoints=None if folder is None else folder.checkpoints,
            flops=flops,
            trace=folder.path / PROFILE if profile and folder is not None else None,
        )
        return layout.to_global(_train(training, folder, state, log))


def _train(
    training: Training, folder: Folder | None, state: TrainState, log: Log | None
) -> TrainState:
    """The state after the last step, once it is on disk.

    Raises:
        Stopped: by a signal.
    """
    for note in notes(state.params, training.layout.mesh, training.layout.rules):
        say(note)
    path = None if folder is None else folder.path
    start = int(state.step)
    with Progress(path, start, training.settings.steps, log) as progress:
        step, state, signal = run_steps(training, progress, start, state)
    if folder is not None:
        folder.checkpoints.wait()
        if signal:  # which ends no training that keeps nothing
            raise Stopped(signal, step, folder.path)
    return state


def _check_objects(apply_fn, loss_fn, draw, optimizer, callbacks, log) -> None:
    """Checks that each object can do what is asked of it, before anything is opened."""
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(module)")
    check_methods("the loss", loss_fn, such_as="make_loss_fn(apply_fn)")
    check_methods("the draw", draw, such_as="Draw()")
    check_methods("the optimizer", optimizer, "init", "update", such_as="optax.adam(1e-3)")
    if log is not None:
        check_methods("log", log, such_as="lambda step, values: print(step, values)")
    for callback in callbacks:
        check_methods("a callback", callback, such_as="lambda step, state: ...")


def _layout(
    mesh: Mesh | MeshSizes | None, parallel: Parallel, steps: int, rules: Rules
) -> Jit | Pmap:
    if not isinstance(mesh, Mesh):
        if mesh is not None and not isinstance(mesh, tuple):
            raise InputError(
                "mesh must be a mesh of fmjax.training.mesh.make_mesh, or MeshSizes(fsdp=4) and "
                f"the like; got {mesh!r}."
            )
        mesh = make_mesh(sizes=DATA_PARALLEL if mesh is None else MeshSizes(*mesh))
    return layout_over(mesh, parallel, steps, rules)


def _of_batch(
    draw: Callable, layout: Jit | Pmap | None = None
) -> Callable[[PRNGKeyArray, Batch], Any]:
    """A draw as the step asks it, ``draw(key, batch)``; without a layout the batch is whole."""
    if layout is not None and hasattr(draw, "on"):
        draw = draw.on(layout)

    def draw_batch(key: PRNGKeyArray, batch: Batch) -> Any:
        x0 = {"x0": batch["x0"]} if "x0" in batch else {}
        return draw(key, batch["index"], batch["x1"], batch.get("labels"), **x0)

    return draw_batch
