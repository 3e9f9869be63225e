"""Names and shapes of real models, at small sizes with the real proportions, and the table of each onto paths of `ptree.nn`."""

from ptree import convert as c
from ptree.convert import Table


def bert(layers=3, d=24, vocab=67, positions=31):
    """BERT and MiniLM, of transformers; the pooler and the position ids have no counterpart."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocab, d),
        "embeddings.position_embeddings.weight": (positions, d),
        "embeddings.token_type_embeddings.weight": (2, d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    for at in range(layers):
        layer = f"encoder.layer.{at}"
        for name in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{name}.weight"] = (d, d)
            shapes[f"{layer}.attention.self.{name}.bias"] = (d,)
        shapes[f"{layer}.attention.output.dense.weight"] = (d, d)
        shapes[f"{layer}.attention.output.dense.bias"] = (d,)
        shapes[f"{layer}.attention.output.LayerNorm.weight"] = (d,)
        shapes[f"{layer}.attention.output.LayerNorm.bias"] = (d,)
        shapes[f"{layer}.intermediate.dense.weight"] = (4 * d, d)
        shapes[f"{layer}.intermediate.dense.bias"] = (4 * d,)
        shapes[f"{layer}.output.dense.weight"] = (d, 4 * d)
        shapes[f"{layer}.output.dense.bias"] = (d,)
        shapes[f"{layer}.output.LayerNorm.weight"] = (d,)
        shapes[f"{layer}.output.LayerNorm.bias"] = (d,)
    shapes["pooler.dense.weight"] = (d, d)
    shapes["pooler.dense.bias"] = (d,)
    table = Table(
        {
            "embeddings.{word,position,token_type}_embeddings.weight": "embed/{token,position,type}/table",
            "embeddings.LayerNorm.weight": "embed/norm/scale",
            "embeddings.LayerNorm.bias": "embed/norm/bias",
            "encoder.layer.*.attention.self.{query,key,value}.weight": (
                "blocks/*/attention/{q,k,v}/kernel",
                c.linear >> c.heads(4),
            ),
            "encoder.layer.*.attention.self.{query,key,value}.bias": ("blocks/*/attention/{q,k,v}/bias", c.heads(4)),
            "encoder.layer.*.attention.output.dense.weight": (
                "blocks/*/attention/o/kernel",
                c.linear >> c.heads(4, axis=0),
            ),
            "encoder.layer.*.attention.output.dense.bias": "blocks/*/attention/o/bias",
            "encoder.layer.*.attention.output.LayerNorm.weight": "blocks/*/attention_norm/scale",
            "encoder.layer.*.attention.output.LayerNorm.bias": "blocks/*/attention_norm/bias",
            "encoder.layer.*.intermediate.dense.weight": ("blocks/*/mlp/up/kernel", c.linear),
            "encoder.layer.*.intermediate.dense.bias": "blocks/*/mlp/up/bias",
            "encoder.layer.*.output.dense.weight": ("blocks/*/mlp/down/kernel", c.linear),
            "encoder.layer.*.output.dense.bias": "blocks/*/mlp/down/bias",
            "encoder.layer.*.output.LayerNorm.weight": "blocks/*/mlp_norm/scale",
            "encoder.layer.*.output.LayerNorm.bias": "blocks/*/mlp_norm/bias",
            "pooler.**": c.carry,
        }
    )
    return shapes, table


def gpt2(layers=3, d=24, vocab=67, positions=31):
    """GPT-2: `Conv1D` is not transposed, `attn.c_proj` is square; the head is tied and not in the file."""
    shapes = {"wte.weight": (vocab, d), "wpe.weight": (positions, d)}
    for at in range(layers):
        for norm in ("ln_1", "ln_2"):
            shapes[f"h.{at}.{norm}.weight"] = (d,)
            shapes[f"h.{at}.{norm}.bias"] = (d,)
        for name, shape in (
            ("attn.c_attn", (d, 3 * d)),
            ("attn.c_proj", (d, d)),
            ("mlp.c_fc", (d, 4 * d)),
            ("mlp.c_proj", (4 * d, d)),
        ):
            shapes[f"h.{at}.{name}.weight"] = shape
            shapes[f"h.{at}.{name}.bias"] = shape[1:]
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    table = Table(
        {
            "wte.weight": "wte/table",
            "wpe.weight": "wpe/table",
            "h.*.ln_{1,2}.weight": "blocks/*/norm{1,2}/scale",
            "h.*.ln_{1,2}.bias": "blocks/*/norm{1,2}/bias",
            "h.*.attn.c_attn.weight": (
                "blocks/*/attn/q/kernel",
                "blocks/*/attn/k/kernel",
                "blocks/*/attn/v/kernel",
                c.split(3, axis=1) >> c.heads(4),
            ),
            "h.*.attn.c_attn.bias": (
                "blocks/*/attn/q/bias",
                "blocks/*/attn/k/bias",
                "blocks/*/attn/v/bias",
                c.split(3) >> c.heads(4),
            ),
            "h.*.attn.c_proj.weight": ("blocks/*/attn/o/kernel", c.as_is >> c.heads(4, axis=0)),
            "h.*.attn.c_proj.bias": "blocks/*/attn/o/bias",
            "h.*.mlp.c_fc.weight": ("blocks/*/mlp/up/kernel", c.as_is),
            "h.*.mlp.c_fc.bias": "blocks/*/mlp/up/bias",
            "h.*.mlp.c_proj.weight": ("blocks/*/mlp/down/kernel", c.as_is),
            "h.*.mlp.c_proj.bias": "blocks/*/mlp/down/bias",
            "ln_f.weight": "norm/scale",
            "ln_f.bias": "norm/bias",
        }
    )
    return shapes, table


def gpt2_unfused(layers=3, d=24):
    """GPT-2 with one square kernel a block for each of its own, and a head that a Linear made: transposed, unlike the blocks."""
    shapes = {"head.weight": (67, d), "wte.weight": (67, d)}
    for at in range(layers):
        shapes[f"h.{at}.attn.c_proj.weight"] = (d, d)
        shapes[f"h.{at}.mlp.c_fc.weight"] = (d, 4 * d)
        shapes[f"h.{at}.mlp.c_proj.weight"] = (4 * d, d)
    shapes["extra.weight"] = (d, d)
    table = Table(
        {
            "head.weight": ("head/kernel", c.linear),
            "wte.weight": "wte/table",
            "h.*.attn.c_proj.weight": ("blocks/*/attn/out/kernel", c.as_is),
            "h.*.mlp.c_fc.weight": ("blocks/*/mlp/fc/kernel", c.as_is),
            "h.*.mlp.c_proj.weight": ("blocks/*/mlp/proj/kernel", c.as_is),
            "extra.weight": ("extra/kernel", c.linear),
        }
    )
    return shapes, table


def llama(layers=3, d=32, heads=4, kv_heads=2, vocab=67):
    """Llama with grouped queries: keys and values have fewer heads."""
    size = d // heads
    shapes = {"model.embed_tokens.weight": (vocab, d)}
    for at in range(layers):
        layer = f"model.layers.{at}"
        shapes[f"{layer}.self_attn.q_proj.weight"] = (d, d)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (kv_heads * size, d)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (kv_heads * size, d)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (d, d)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (88, d)
        shapes[f"{layer}.mlp.up_proj.weight"] = (88, d)
        shapes[f"{layer}.mlp.down_proj.weight"] = (d, 88)
        shapes[f"{layer}.input_layernorm.weight"] = (d,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (d,)
    shapes |= {"model.norm.weight": (d,), "lm_head.weight": (vocab, d)}
    layer, block = "model.layers.*", "layers/*"
    table = Table(
        {
            "model.embed_tokens.weight": "embed/table",
            f"{layer}.self_attn.q_proj.weight": (f"{block}/attention/q/kernel", c.linear >> c.heads(heads)),
            f"{layer}.self_attn.{{k,v}}_proj.weight": (
                f"{block}/attention/{{k,v}}/kernel",
                c.linear >> c.heads(kv_heads),
            ),
            f"{layer}.self_attn.o_proj.weight": (f"{block}/attention/o/kernel", c.linear >> c.heads(heads, axis=0)),
            f"{layer}.mlp.{{gate,up,down}}_proj.weight": (f"{block}/mlp/{{gate,up,down}}/kernel", c.linear),
            f"{layer}.input_layernorm.weight": f"{block}/input_norm/scale",
            f"{layer}.post_attention_layernorm.weight": f"{block}/mlp_norm/scale",
            "model.norm.weight": "norm/scale",
            "lm_head.weight": ("head/kernel", c.linear),
        }
    )
    return shapes, table


def resnet(blocks=2, width=8, classes=10):
    """ResNet-18 with torchvision's names: square convolutions, a stage whose first block changes the size."""
    shapes = {"conv1.weight": (width, 3, 7, 7)}
    norms = ["bn1"]
    sizes = {"bn1": width}
    for stage in range(1, 5):
        out = width * 2 ** (stage - 1)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            features = out // 2 if stage > 1 and block == 0 else out
            shapes[f"{name}.conv1.weight"] = (out, features, 3, 3)
            shapes[f"{name}.conv2.weight"] = (out, out, 3, 3)
            norms += [f"{name}.bn1", f"{name}.bn2"]
            sizes |= {f"{name}.bn1": out, f"{name}.bn2": out}
            if features != out:
                shapes[f"{name}.downsample.0.weight"] = (out, features, 1, 1)
                norms.append(f"{name}.downsample.1")
                sizes[f"{name}.downsample.1"] = out
    for norm in norms:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = (sizes[norm],)
    shapes |= {"fc.weight": (classes, width * 8), "fc.bias": (classes,)}
    of_norm = [("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var")]
    rows = {"conv1.weight": ("stem/conv/kernel", c.conv)}
    for leaf, ours in of_norm:
        rows[f"bn1.{leaf}"] = f"stem/norm/{ours}"
        rows[f"layer{{1..4}}.*.bn{{1,2}}.{leaf}"] = f"stages/{{0..3}}/*/norm{{1,2}}/{ours}"
        rows[f"layer{{1..4}}.*.downsample.1.{leaf}"] = f"stages/{{0..3}}/*/shortcut_norm/{ours}"
    rows |= {
        "layer{1..4}.*.conv{1,2}.weight": ("stages/{0..3}/*/conv{1,2}/kernel", c.conv),
        "layer{1..4}.*.downsample.0.weight": ("stages/{0..3}/*/shortcut/kernel", c.conv),
        "fc.weight": ("head/kernel", c.linear),
        "fc.bias": "head/bias",
    }
    return shapes, Table(rows)


def vit(layers=3, d=24):
    """ViT with torchvision's names: `in_proj_weight`, and three leaves that are no layer's."""
    shapes = {
        "class_token": (1, 1, d),
        "conv_proj.weight": (d, 3, 4, 4),
        "conv_proj.bias": (d,),
        "encoder.pos_embedding": (1, 17, d),
    }
    for at in range(layers):
        layer = f"encoder.layers.encoder_layer_{at}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{layer}.{norm}.weight": (d,), f"{layer}.{norm}.bias": (d,)}
        shapes |= {
            f"{layer}.self_attention.in_proj_weight": (3 * d, d),
            f"{layer}.self_attention.in_proj_bias": (3 * d,),
            f"{layer}.self_attention.out_proj.weight": (d, d),
            f"{layer}.self_attention.out_proj.bias": (d,),
            f"{layer}.mlp.0.weight": (4 * d, d),
            f"{layer}.mlp.0.bias": (4 * d,),
            f"{layer}.mlp.3.weight": (d, 4 * d),
            f"{layer}.mlp.3.bias": (d,),
        }
    shapes |= {"encoder.ln.weight": (d,), "encoder.ln.bias": (d,)}
    shapes |= {"heads.head.weight": (10, d), "heads.head.bias": (10,)}
    layer, block = "encoder.layers.encoder_layer_*", "encoder/*"
    thirds = [f"{block}/attention/{name}" for name in "qkv"]
    table = Table(
        {
            "class_token": "class_token",
            "conv_proj.weight": ("patch/kernel", c.conv),
            "conv_proj.bias": "patch/bias",
            "encoder.pos_embedding": "position",
            f"{layer}.ln_{{1,2}}.weight": f"{block}/norm{{1,2}}/scale",
            f"{layer}.ln_{{1,2}}.bias": f"{block}/norm{{1,2}}/bias",
            f"{layer}.self_attention.in_proj_weight": (
                *(f"{name}/kernel" for name in thirds),
                c.split(3) >> c.linear >> c.heads(4),
            ),
            f"{layer}.self_attention.in_proj_bias": (*(f"{name}/bias" for name in thirds), c.split(3) >> c.heads(4)),
            f"{layer}.self_attention.out_proj.weight": (
                f"{block}/attention/o/kernel",
                c.linear >> c.heads(4, axis=0),
            ),
            f"{layer}.self_attention.out_proj.bias": f"{block}/attention/o/bias",
            f"{layer}.mlp.{{0,3}}.weight": (f"{block}/mlp/{{0,2}}/kernel", c.linear),
            f"{layer}.mlp.{{0,3}}.bias": f"{block}/mlp/{{0,2}}/bias",
            "encoder.ln.weight": "norm/scale",
            "encoder.ln.bias": "norm/bias",
            "heads.head.weight": ("head/kernel", c.linear),
            "heads.head.bias": "head/bias",
        }
    )
    return shapes, table


def keras_cnn():
    """A network of Keras: kernels lie as ours, and a transposed convolution's axes are swapped."""
    shapes = {
        "conv2d/kernel": (3, 3, 3, 16),
        "conv2d/bias": (16,),
        "conv2d_1/kernel": (3, 3, 16, 16),
        "conv2d_1/bias": (16,),
        "batch_normalization/gamma": (16,),
        "batch_normalization/beta": (16,),
        "batch_normalization/moving_mean": (16,),
        "batch_normalization/moving_variance": (16,),
        "conv2d_transpose/kernel": (3, 3, 16, 16),
        "conv2d_transpose/bias": (16,),
        "dense/kernel": (64, 64),
        "dense/bias": (64,),
        "dense_1/kernel": (64, 10),
        "dense_1/bias": (10,),
    }
    table = Table(
        {
            "conv2d/kernel": "conv_in/kernel",
            "conv2d/bias": "conv_in/bias",
            "conv2d_1/kernel": "conv_mid/kernel",
            "conv2d_1/bias": "conv_mid/bias",
            "batch_normalization/gamma": "norm/scale",
            "batch_normalization/beta": "norm/bias",
            "batch_normalization/moving_mean": "norm/mean",
            "batch_normalization/moving_variance": "norm/var",
            "conv2d_transpose/kernel": ("up/kernel", c.swap(-1, -2)),
            "conv2d_transpose/bias": "up/bias",
            "dense/kernel": "dense/kernel",
            "dense/bias": "dense/bias",
            "dense_1/kernel": "head/kernel",
            "dense_1/bias": "head/bias",
        }
    )
    return shapes, table


def autoencoder():
    """Convolutions and transposed ones of PyTorch in a Sequential: a square one fits both layouts."""
    shapes = {
        "encoder.0.weight": (32, 3, 3, 3), "encoder.0.bias": (32,),
        "encoder.2.weight": (32, 32, 3, 3), "encoder.2.bias": (32,),
        "decoder.0.weight": (32, 32, 3, 3), "decoder.0.bias": (32,),
        "decoder.2.weight": (32, 3, 3, 3), "decoder.2.bias": (3,),
    }  # fmt: skip
    table = Table(
        {
            "encoder.*.weight": ("encoder/*/kernel", c.conv),
            "encoder.*.bias": "encoder/*/bias",
            "decoder.*.weight": ("decoder/*/kernel", c.conv_transpose()),
            "decoder.*.bias": "decoder/*/bias",
        }
    )
    return shapes, table


def lenet():
    """Convolutions, then features that PyTorch flattens as (channels, height, width)."""
    shapes = {
        "conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
        "fc1.weight": (120, 400), "fc1.bias": (120,),
        "fc2.weight": (84, 120), "fc2.bias": (84,),
        "fc3.weight": (10, 84), "fc3.bias": (10,),
    }  # fmt: skip
    table = Table(
        {
            "conv*.weight": ("conv*/kernel", c.conv),
            "conv*.bias": "conv*/bias",
            "fc1.weight": ("dense1/kernel", c.linear >> c.flatten_order((16, 5, 5), (1, 2, 0))),
            "fc*.weight": ("dense*/kernel", c.linear),
            "fc*.bias": "dense*/bias",
        }
    )
    return shapes, table


def mlp():
    """A Sequential of PyTorch whose hidden layers are square."""
    shapes = {}
    for at, shape in ((0, (64, 10)), (2, (64, 64)), (4, (64, 64)), (6, (3, 64))):
        shapes |= {f"{at}.weight": shape, f"{at}.bias": shape[:1]}
    return shapes, Table({"*.weight": ("*/kernel", c.linear), "*.bias": "*/bias"})


def mlp_of_names():
    """The same network onto layers with names: two square layers whose order alone says which is which."""
    shapes, _ = mlp()
    names = "{first,second,third,last}"
    table = Table({"{0,2,4,6}.weight": (f"{names}/kernel", c.linear), "{0,2,4,6}.bias": f"{names}/bias"})
    return shapes, table


def flax_transformer(d=24):
    """A network of Flax: names with counters, kernels as ours."""
    shapes = {"params/Embed_0/embedding": (67, d)}
    for at in range(2):
        layer = f"params/Block_{at}"
        for name in ("query", "key", "value"):
            shapes |= {
                f"{layer}/MultiHeadDotProductAttention_0/{name}/kernel": (d, 4, d // 4),
                f"{layer}/MultiHeadDotProductAttention_0/{name}/bias": (4, d // 4),
            }
        shapes |= {
            f"{layer}/MultiHeadDotProductAttention_0/out/kernel": (4, d // 4, d),
            f"{layer}/MultiHeadDotProductAttention_0/out/bias": (d,),
            f"{layer}/Dense_0/kernel": (d, d),
            f"{layer}/Dense_0/bias": (d,),
            f"{layer}/LayerNorm_0/scale": (d,),
            f"{layer}/LayerNorm_0/bias": (d,),
        }
    layer, block = "params/Block_*", "blocks/*"
    table = Table(
        {
            "params/Embed_0/embedding": "embed/table",
            f"{layer}/MultiHeadDotProductAttention_0/{{query,key,value,out}}/*": f"{block}/attention/{{q,k,v,o}}/*",
            f"{layer}/Dense_0/*": f"{block}/dense/*",
            f"{layer}/LayerNorm_0/*": f"{block}/norm/*",
        }
    )
    return shapes, table


def lstm(h=8):
    """An LSTM of PyTorch: its gates lie in our order, which shapes cannot tell."""
    shapes = {
        "rnn.weight_ih_l0": (4 * h, 5), "rnn.weight_hh_l0": (4 * h, h),
        "rnn.bias_ih_l0": (4 * h,), "rnn.bias_hh_l0": (4 * h,),
    }  # fmt: skip
    table = Table(
        {
            "rnn.weight_{ih,hh}_l0": ("rnn/{input,hidden}/kernel", c.linear >> c.gates("ifgo", "ifgo")),
            "rnn.bias_{ih,hh}_l0": ("rnn/{input,hidden}/bias", c.gates("ifgo", "igfo")),
        }
    )
    return shapes, table


MODELS = {
    "bert": bert, "gpt2": gpt2, "gpt2_unfused": gpt2_unfused, "llama": llama, "resnet": resnet, "vit": vit,
    "keras_cnn": keras_cnn, "autoencoder": autoencoder, "lenet": lenet, "mlp": mlp, "mlp_of_names": mlp_of_names,
    "flax_transformer": flax_transformer, "lstm": lstm,
}  # fmt: skip
