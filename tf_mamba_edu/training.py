"""How a Mamba is trained: windows of text, optimizer, schedule, and many devices at once."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.validation import check_positive_int


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MambaAdamW(keras.optimizers.AdamW):
    """AdamW that decays only the matrices that should shrink.

    Vectors (biases, Delta's bias, D, norm scales) and A_log are left alone, as in the official
    code: decay would pull A and Delta away from the time scales that they hold. Unlike
    `exclude_from_weight_decay` on a plain AdamW, the choice survives saving and loading.
    """

    def build(self, variables):
        if not self.built:
            self.exclude_from_weight_decay(
                [v for v in variables if not decays(v)]
            )
        super().build(variables)


def decays(variable) -> bool:
    """Returns whether weight decay acts on this variable: a matrix other than A_log."""
    return len(variable.shape) >= 2 and variable.name != "A_log"


def make_optimizer(
    learning_rate: float,
    steps: int,
    warmup_steps: int | None = None,
    weight_decay: float = 0.1,
    final_fraction: float = 0.05,
) -> MambaAdamW:
    """Returns AdamW with clipping, warm-up and a cosine schedule.

    The recipe of arXiv 2312.00752, appendix E.2: betas are (0.9, 0.95), and the global gradient
    norm is clipped to 1.

    Args:
        learning_rate: the highest, reached after the warm-up.
        steps: training steps in all.
        warmup_steps: steps of linear warm-up; a tenth of all, at most 200, if None.
        weight_decay: per step, times the learning rate; see `MambaAdamW`.
        final_fraction: the last learning rate as a fraction of the highest.

    Returns:
        An optimizer for `compile`.

    Raises:
        ValueError: if steps is not positive or the warm-up takes all of them.
    """
    steps = check_positive_int("steps", steps)
    warmup_steps = (
        min(200, steps // 10) if warmup_steps is None else warmup_steps
    )
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            "`warmup_steps` must lie between 0 and steps - 1 = "
            f"{steps - 1}. Received: warmup_steps={warmup_steps}"
        )
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=steps - warmup_steps,
        alpha=final_fraction,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    return MambaAdamW(
        schedule,
        weight_decay=weight_decay,
        beta_1=0.9,
        beta_2=0.95,
        global_clipnorm=1.0,
    )


def random_windows(
    passages: Sequence[np.ndarray], length: int, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws windows of tokens for training, each from within one passage.

    Args:
        passages: one (n,) integer array per passage; those shorter than a window are left out.
        length: L, tokens in a window.
        count: how many windows.
        seed: the same seed draws the same windows.

    Returns:
        (inputs, targets), both (count, L) int32; targets are the tokens one step later.

    Raises:
        ValueError: if no passage holds length + 1 tokens.
    """
    passages = _long_enough(passages, length)
    starts_in = np.array(
        [len(p) - length for p in passages]
    )  # possible starts per passage
    rng = np.random.default_rng(seed)
    which = rng.choice(
        len(passages), count, p=starts_in / starts_in.sum()
    )
    starts = rng.integers(0, starts_in[which])
    windows = np.stack(
        [
            passages[i][s : s + length + 1]
            for i, s in zip(which, starts, strict=True)
        ]
    )
    return windows[:, :-1], windows[:, 1:]


def consecutive_windows(
    passages: Sequence[np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each passage into windows that follow each other, for evaluation.

    Every target occurs once; the last few tokens of a passage that fill no window are left out.

    Args:
        passages: one (n,) integer array per passage.
        length: L, tokens in a window.

    Returns:
        (inputs, targets), both (count, L) int32; targets are the tokens one step later.

    Raises:
        ValueError: if no passage holds length + 1 tokens.
    """
    passages = _long_enough(passages, length)
    windows = np.stack(
        [
            p[s : s + length + 1]
            for p in passages
            for s in range(0, len(p) - length, length)
        ]
    )
    return windows[:, :-1], windows[:, 1:]


def _long_enough(passages, length):
    length = check_positive_int("length", length)
    kept = [
        np.asarray(p, np.int32) for p in passages if len(p) > length
    ]
    if not kept:
        longest = max((len(p) for p in passages), default=0)
        raise ValueError(
            f"`passages` must include one of at least length + 1 = {length + 1} tokens. "
            f"Received {len(passages)} passages, the longest of {longest}"
        )
    return kept


def fit_distributed(
    model: keras.Model,
    dataset: tf.data.Dataset,
    epochs: int = 1,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> keras.callbacks.History:
    """Trains a model on all devices of its strategy and ends with the weights that one would reach.

    Each replica takes its share of every batch, the gradients are summed over all replicas, and
    then clipped. Keras' `fit` clips before it sums, which is another optimizer, and does not run
    on several workers at all (keras-team/keras#20585).

    Args:
        model: made and compiled in the scope of a `tf.distribute.Strategy`; without one, a plain
            loop runs. The loss must be a mean over the examples of a batch.
        dataset: of whole batches (inputs, targets) or (inputs, targets, sample weights), the same
            on every worker: shuffle with a seed. A batch may have fewer examples than replicas.
        epochs: the number of the last epoch, as in `fit`.
        initial_epoch: the number of epochs already done, as in `fit`.
        callbacks: Keras callbacks; on several workers only the first should write files.
        verbose: 1 shows a progress bar, 2 a line an epoch, 0 nothing.

    Returns:
        The history of `fit`, with the mean loss of every epoch. The compiled metrics do not run.

    Raises:
        ValueError: if the model is not compiled or scales its loss (mixed_float16), or if the
            dataset is empty.
    """
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled. Received a model without optimizer: call compile()"
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "`model` must not scale its loss; use the policy mixed_bfloat16. "
            f"Received: optimizer of type {type(model.optimizer).__name__}"
        )
    strategy = model.distribute_strategy
    with strategy.scope():  # not inside tf.function, where it fails
        model.optimizer.build(model.trainable_variables)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = strategy.experimental_distribute_dataset(
        dataset.with_options(options)
    )

    train_step = _distributed_step(model, strategy)
    hooks = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=_known_length(dataset),
    )
    model.stop_training = False
    hooks.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        hooks.on_epoch_begin(epoch)
        total = examples = 0.0
        for i, batch in enumerate(batches):
            hooks.on_train_batch_begin(i)
            batch_total, batch_examples = train_step(batch)
            total += float(batch_total)
            examples += float(batch_examples)
            hooks.on_train_batch_end(i, {"loss": total / examples})
        if not examples:
            raise ValueError(
                "`dataset` must hold at least one batch. Received an empty one"
            )
        hooks.on_epoch_end(epoch, {"loss": total / examples})
        if model.stop_training:
            break
    hooks.on_train_end()
    return model.history


def _distributed_step(model, strategy):
    """The step of all replicas, traced once a compilation of the model."""
    optimizer, step = getattr(model, "_step_of_fit", (None, None))
    if optimizer is not model.optimizer:

        @tf.function
        def step(batch):
            results = strategy.run(_replica_step, args=(model, batch))
            return [
                strategy.reduce("sum", r, axis=None) for r in results
            ]

        # Not a tracked attribute: it is no part of the model.
        made = model.optimizer, step
        object.__setattr__(model, "_step_of_fit", made)
    return step


def _replica_step(model, batch):
    """One training step of one replica on its share of a batch: sum of losses, examples."""
    replica = tf.distribute.get_replica_context()
    replicas = replica.num_replicas_in_sync
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    examples = tf.cast(tf.shape(y)[0], tf.float32)
    share = examples / replica.all_reduce("sum", examples)
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, weights, training=True)
        loss = loss * replicas  # by which Keras has divided it
        part = loss * share  # of the mean over the whole batch
    variables = model.trainable_variables
    gradients = replica.all_reduce(
        "sum",
        [
            tf.convert_to_tensor(g)
            for g in tape.gradient(part, variables)
        ],
    )
    gradients = _clipped(model.optimizer, gradients)
    # Keras sums what the replicas hand over, and so each hands over a part.
    model.optimizer.apply([g / replicas for g in gradients], variables)
    return loss * examples, examples


def _clipped(optimizer, gradients):
    """The gradients of all variables, clipped as the optimizer is told to."""
    if optimizer.global_clipnorm:
        return tf.clip_by_global_norm(
            gradients, optimizer.global_clipnorm
        )[0]
    if optimizer.clipnorm:
        return [
            tf.clip_by_norm(g, optimizer.clipnorm) for g in gradients
        ]
    if optimizer.clipvalue:
        limit = optimizer.clipvalue
        return [tf.clip_by_value(g, -limit, limit) for g in gradients]
    return gradients


def _known_length(dataset) -> int | None:
    """The number of batches, or None where the dataset cannot tell."""
    length = int(dataset.cardinality())
    return length if length >= 0 else None
