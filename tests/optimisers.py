"""Optimisers of optax, each as a function that makes it, and what their updates get besides gradients and parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from optax import contrib

RATE = 1e-2

OF_A_RATE = (
    "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lion nadam nadamw novograd"
    " optimistic_adam optimistic_adam_v2 optimistic_gradient_descent radam rmsprop rprop sgd sign_sgd signum sm3 yogi"
)
OF_A_RATE_IN_CONTRIB = "acprop ademamix adopt cocob dadapt_adamw dog dowg madgrad momo muon schedule_free_adamw"


def sharpness_aware() -> optax.GradientTransformation:
    return contrib.sam(optax.sgd(RATE), optax.chain(contrib.normalize(), optax.sgd(0.05)), sync_period=2)


OPTIMISERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    **{name: lambda name=name: getattr(optax, name)(RATE) for name in OF_A_RATE.split()},
    **{name: lambda name=name: getattr(contrib, name)(RATE) for name in OF_A_RATE_IN_CONTRIB.split()},
    "adafactor of small": lambda: optax.adafactor(RATE, min_dim_size_to_factor=2),
    "galore": lambda: contrib.galore(RATE, rank=2, update_proj_gap=2),
    "lbfgs": lambda: optax.lbfgs(memory_size=3),
    "lbfgs without line search": lambda: optax.lbfgs(RATE, memory_size=3, linesearch=None),
    "mechanize": lambda: contrib.mechanize(optax.adam(RATE)),
    "noisy_sgd": lambda: optax.noisy_sgd(RATE, key=jax.random.key(0)),
    "polyak_sgd": lambda: optax.polyak_sgd(RATE),
    "prodigy": contrib.prodigy,
    "reduce_on_plateau": lambda: optax.chain(optax.adam(RATE), contrib.reduce_on_plateau(patience=1)),
    "sam": sharpness_aware,
    "schedule": lambda: optax.adam(optax.cosine_decay_schedule(RATE, 10)),
    "schedule_free_sgd": lambda: contrib.schedule_free_sgd(RATE),
    "simplified_ademamix": lambda: contrib.simplified_ademamix(RATE),
    "sgd with momentum": lambda: optax.sgd(RATE, momentum=0.9, nesterov=True),
    "sophia": lambda: contrib.sophia(RATE, update_interval=2),
    "adamw with a mask by rank": lambda: optax.adamw(RATE, mask=lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=RATE, weight_decay=0.1),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(RATE), 2).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(RATE), 3),
    "adaptive_grad_clip": lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(RATE)),
    "centralize": lambda: optax.chain(optax.centralize(), optax.sgd(RATE)),
    "clip_by_block_rms": lambda: optax.chain(optax.clip_by_block_rms(0.1), optax.sgd(RATE)),
    "scale_by_trust_ratio": lambda: optax.chain(optax.scale_by_trust_ratio(), optax.sgd(RATE)),
    "scale_by_param_block_norm": lambda: optax.chain(optax.scale_by_param_block_norm(), optax.sgd(RATE)),
    "scale_by_param_block_rms": lambda: optax.chain(optax.scale_by_param_block_rms(), optax.sgd(RATE)),
    "clip_by_global_norm": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adam(RATE)),
    "normalize_by_update_norm": lambda: optax.chain(optax.normalize_by_update_norm(), optax.sgd(RATE)),
}
"""Each optimiser of optax by its name, and the pieces that look at ranks or norms in a chain."""


EXTRA = {
    "lbfgs": ("value", "grad", "value_fn"),
    "momo": ("value",),
    "polyak_sgd": ("value",),
    "reduce_on_plateau": ("value",),
    "sophia": ("obj_fn",),
}
"""What updates get besides gradients and parameters."""

RANKS_AND_NORMS = (  # noqa: SIM905
    "adafactor, adafactor of small, fromage, lamb, lars, novograd, sm3, muon, galore, adaptive_grad_clip, clip_by_block_rms,"
    " scale_by_trust_ratio, centralize, scale_by_param_block_norm, scale_by_param_block_rms, adamw with a mask by rank"
).split(", ")
"""Those that look at the rank or the norm of a parameter, and so treat a stack otherwise than its layers apart."""


def loss(params):
    """A loss of every leaf, whose gradients differ from leaf to leaf and from number to number."""
    return sum(jnp.sum(jnp.sin(3 * leaf) + 0.5 * leaf**2) for leaf in jax.tree.leaves(params))


def take_steps(name, optimiser, params, steps=3, loss=loss):
    """The parameters after some steps; to be called in `jax.jit`."""

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        everything = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss}
        extra = {argument: everything[argument] for argument in EXTRA.get(name, ())}
        updates, state = optimiser.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    carry = jax.tree.map(jnp.asarray, (params, optimiser.init(params)))
    carry = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), carry)  # a loop keeps its types
    (params, _), _ = jax.lax.scan(step, carry, None, length=steps)
    return params


def compiled(function, *args):
    """The results of a function, compiled quickly and not well: most of these programs run once."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*args).compile(compiler_options=options)(*args)
