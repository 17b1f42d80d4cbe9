"""Names that people bring from papers and other libraries, and what each is called here: one table of pointers.

A name is compared without case, dashes, dots and underscores: `FedAvg`, `fed-avg` and `fed_avg` are one. A pointer is
shown as the way out of a message. A method that fedsim lacks is never answered with the name of another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fedsim.errors import nearest


def _by_name(names: Mapping[str, str]) -> dict[str, str]:
    """Return name -> what to write, of what to write -> names."""
    return {name: written for written, text in names.items() for name in text.split()}


COMMANDS = {
    "init": "fedsim new",
    "create": "fedsim new",
    "template": "fedsim new",
    "ls": "fedsim status FOLDER, for the runs in it",
    "list": "fedsim profiles list, or fedsim status FOLDER for runs",
    "train": "fedsim run FILE.yaml",
    "start": "fedsim run FILE.yaml",
    "simulate": "fedsim run FILE.yaml",
    "plan": "fedsim run FILE.yaml --dry-run",
    "check": "fedsim run FILE.yaml --dry-run",
    "validate": "fedsim run FILE.yaml --dry-run",
    "audit": "fedsim verify RUN",
    "continue": "fedsim resume RUN",
    "restart": "fedsim resume RUN",
    "grid": "fedsim sweep FILE.yaml",
    "plot": "fedsim report RUN",
    "show": "fedsim report RUN",
    "view": "fedsim report RUN",
    "diff": "fedsim compare RUN RUN",
    "trace": "fedsim timeline RUN",
    "config": "fedsim explain KEY",
    "help": "fedsim --help, or fedsim explain KEY",
    "version": "fedsim --version",
    "completion": "fedsim --install-completion",
    "stop": "Ctrl-C where it runs; the tables are kept",
    "kill": "Ctrl-C where it runs; the tables are kept",
}
"""Commands that people type -> what there is for it."""

_METHODS: dict[str, str] = {
    "aggregator.kind: fedit (of adapters FedAvg is FedIT; of whole models with lora.full: true)": "fedavg",
    "aggregator.kind: fedit": "fedlora lora average mean weightedaverage",
    "aggregator.kind: fedit, with local: {optimizer: sgd, steps: 1}": "fedsgd",
    "local.prox_mu: 0.01, with aggregator.kind: fedit": "fedprox",
    "server_optimizer.kind: adam": "fedadam fedadamw",
    "server_optimizer.kind: yogi": "fedyogi",
    "server_optimizer.kind: adagrad": "fedadagrad",
    "server_optimizer.kind: momentum": "fedavgm fedmom",
    "server_optimizer.kind: adam (or yogi, adagrad, momentum)": "fedopt",
    "server_optimizer.kind: fadas": "fedams",
    "aggregator.kind: mixing, with protocol: {kind: buffered, buffer: 1}": "fedasync",
    "protocol.kind: buffered, with aggregator: {kind: fedit, normalize: K}": "fedbuff",
    "protocol.kind: buffered": "async asynchronous asyncfl",
    "protocol.kind: synchronous": "sync syncfl",
    "protocol.kind: semi-synchronous": "semisync safa",
    "protocol.kind: semi-synchronous (or buffered)": "semiasync",
    "protocol: {kind: tiers, across: turns}": "tifl",
    "protocol: {kind: tiers, across: asynchronous}": "fedat",
    "protocol.kind: timely": "timelyfl",
    "sampler.kind: least-available": "refl",
    "sampler.kind: uniform": "random rand randomsampling uniformrandom",
    "sampler.kind: power-of-choice": "poc powd powerofd pocsampling",
    "aggregator.kind: ffa": "ffalora fedffa",
    "aggregator.kind: fedsa": "fedsalora",
    "aggregator.kind: fedex": "fedexlora",
    "aggregator.kind: flora": "fedflora",
    "aggregator.kind: local-only": "local localtraining standalone",
    "personal.kind: fine-tune": "finetune finetuning",
    "personal.kind: feddpa": "feddpalora",
    "server_optimizer.kind: adam (of the clients: local.optimizer: adamw)": "adamw",
    "server_optimizer.kind: none (of the clients: local.optimizer: sgd)": "sgd",
    "task.kind: language": "text lm clm causallm languagemodeling",
    "task.kind: images": "image vision diffusion",
    "task.kind: quadratic": "toy",
    "task.partition.kind: dirichlet (or pathological, natural, quantity)": "noniid",
    "task.partition.kind: dirichlet": "lda dir labelskew",
    "task.partition.kind: pathological": "shards sharding",
    "task.partition.kind: iid": "uniformsplit",
    "task.partition.kind: natural": "byuser",
    "task.partition.kind: quantity": "quantityskew",
}
METHODS = _by_name(_METHODS)
"""A method's name, squashed -> what to write."""

ABSENT_METHODS = frozenset(
    """
    scaffold fednova feddyn moon fedrep fedbn fedpac pfedme apfl fedgen fedala fedfomo fedproto fedrod fedmd feddf fedcurv fedpaq
    fedem feddc fedlaw fedgh fedas fedctl fedsb fedrot fedrotlora ravan slora fedlease fedmomentum lorafair florist fedplora rbla
    frlora fedhl ilora fedalt hilora fdlora sdflora pfedlora fedadapter fedkseed fedpetuning fedcompass fedasmu ca2fl pisces port
    polaris afl qfedavg qffl fedmedian krum multikrum trimmedmean median bulyan geometricmedian rfa dpfedavg dpsgd secagg
    fedgma fedcda fedlc fedsam mime mimelite fedpd fedlin fedsplit fedboost fedmix clustered ifca fedper++ fedbabu knnper
    """.split()  # noqa: SIM905
)
"""Published methods that fedsim does not have."""

_KEYS: dict[str, str] = {
    "local.lr": "learningrate lr clientlr locallr eta etal",
    "aggregator.server_lr": "serverlr serverlearningrate globallr etag",
    "budget.commits": "rounds numrounds numserverrounds nrounds commrounds communicationrounds globalrounds totalrounds maxrounds iterations numcommits",
    "budget.time_s": "maxtime timelimit timebudget duration",
    "local.batch": "batchsize localbatchsize perdevicetrainbatchsize trainbatchsize bs",
    "local.epochs": "epochs numepochs numtrainepochs localepochs localep",
    "local.steps": "localsteps maxsteps numsteps numlocalsteps localupdates",
    "local.optimizer": "optim clientoptimizer localoptimizer",
    "local.weight_decay": "weightdecay wd",
    "local.prox_mu": "mu proxmu proximalmu fedproxmu fedprox",
    "local.clip_norm": "maxgradnorm gradclip gradientclipping gradientclipval clipgrad",
    "local.schedule": "lrscheduler lrschedulertype scheduler lrschedule",
    "protocol.cohort": "clientsperround numclientsperround cohortsize participants numselected",
    "protocol.cohort (a number: the fraction times population.clients)": "fractionfit clientfraction participationrate samplingrate samplerate joinratio frac",
    "protocol.min_reports": "minfitclients minavailableclients minclients",
    "protocol.over_select": "overselection overcommit overprovisioning",
    "protocol.deadline_s": "roundtimeout roundtimeouts timeout deadline",
    "protocol.buffer": "buffersize",
    "protocol.concurrency": "maxconcurrency asyncconcurrency",
    "population.clients": "numclients nclients totalclients numusers numsupernodes",
    "lora.r": "rank lorarank lorar",
    "lora.alpha": "loraalpha",
    "lora.dropout": "loradropout",
    "lora.targets": "targetmodules loratargetmodules loratargets",
    "seeds.data": "dataseed splitseed partitionseed",
    "seeds.training": "modelseed trainseed trainingseed initseed",
    "seeds.population": "deviceseed systemseed",
    "lora.rslora": "userslora",
    "lora.full": "fullfinetuning",
    "lora.dora": "usedora",
    "lora.lr_ratio": "loraplus loraplusratio lorapluslrratio lrratiob",
    "lora.bias": "lorabias",
    "lora.layers_to_transform": "loralayers adaptedlayers",
    "lora.modules_to_save": "loramodulestosave additionaltargetmodules",
    "lora.start_from": "adapter adapterpath adapternameorpath loraweights peftmodelid initadapter",
    "task.partition.alpha": "dirichletalpha diralpha concentration",
    "lora.alpha (of LoRA), or task.partition.alpha (of a Dirichlet split)": "alpha",
    "task.partition.kind": "partitioner split",
    "task.partition.kind: dirichlet": "noniid",
    "task.partition.kind: iid": "iid",
    "task.model": "model modelname modelnameorpath modelid pretrainedmodelnameorpath basemodel",
    "task.data": "dataset datasetname datapath dataroot datadir trainfile",
    "task.sequence": "maxlength maxseqlen maxseqlength seqlen seqlength blocksize contextlength cutofflen",
    "task.pack": "packing samplepacking",
    "task.loss_on: answers": "assistantonlyloss completiononlyloss trainonresponsesonly maskprompt",
    "task.loss_on: all": "trainoninputs trainonprompts",
    "task.columns.messages": "messagescolumn conversationcolumn",
    "task.format": "datasettype dataformat",
    "task.chat_template": "chattemplate chattemplatepath",
    "task.generate.tokens": "maxnewtokens generationmaxlength",
    "seed": "randomseed rngseed randomstate manualseed",
    "runtime.workers": "numworkers nworkers njobs numcpus parallel",
    "runtime.gpus_per_worker": "gpus numgpus device",
    "runtime.executor": "backend",
    "name": "runname experimentname expname",
    "evaluate.every_commits": "evalevery evaluateevery evalsteps evalinterval testevery evalfreq",
    "evaluate.ema": "ema",
    "task.quantise (of frozen weights), or wire.dtype (of messages)": "quantization quantisation quantize quantise",
    "task.quantise: nf4": "loadin4bit qlora bnb4bitquanttype quantizationconfig",
    "task.quantise: int8": "loadin8bit llmint8",
    "wire.dtype, or wire.top_k": "compression",
    "wire.top_k": "topk sparsity",
    "numerics.dtype": "torchdtype precision",
    "aggregator.kind": "strategy algorithm method aggregation",
    "protocol.kind": "mode",
    "protocol.kind: buffered": "async",
    "sampler.kind": "selection clientselection selector sampling",
    "personal.kind": "personalization personalisation",
    "server_optimizer.kind": "serveroptim",
    "server_optimizer: {kind: momentum, beta: 0.9}": "servermomentum",
    "population.availability": "availability",
    "population.preset": "preset",
    "population.devices": "devices",
    "population.networks": "bandwidth",
    "network.server_down_mbps and network.server_up_mbps": "serverbandwidth",
}
KEYS = _by_name(_KEYS)
"""A setting's name, squashed -> the key here."""

SAME_KEYS: dict[str, tuple[str, ...]] = {
    "cohort": ("concurrency",),
    "deadline_s": ("beat_s",),
    "prox_mu": ("lam",),
}
"""A key -> what stands for it in blocks that do not have it."""

_WORDS: dict[str, str] = {
    "adamw": "adam",
    "float32": "fp32 float full",
    "bfloat16": "bf16 fp16 float16 half",
    "int8": "8bit",
    "int4": "4bit",
    "valid": "val validation dev",
    "inline": "local serial",
    "cosine": "cos",
}
WORDS = _by_name(_WORDS)
"""A word among choices, squashed -> the choice that means it, where it is one."""

TYPO = 0.8
"""Share of letters in common above which a name is a slip of the pen and not another name."""


def squashed(name: str) -> str:
    """Return a name without case and without what joins its parts.

    >>> squashed("Fed-Avg"), squashed("num_rounds"), squashed("learningRate")
    ('fedavg', 'numrounds', 'learningrate')
    """
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def key_pointer(name: str) -> str | None:
    """Return the key that a setting's name stands for; None if it is no known name.

    >>> key_pointer("num_rounds"), key_pointer("nonsense")
    ('budget.commits', None)
    """
    return KEYS.get(squashed(name))


def method_pointer(name: str) -> str | None:
    """Return what to write for a method's name; None if it is no known name.

    >>> method_pointer("FedProx")
    'local.prox_mu: 0.01, with aggregator.kind: fedit'
    """
    return METHODS.get(squashed(name))


def nearest_kind(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a kind that is not there: a pointer, the same name or a slip of the pen corrected, or all kinds.

    >>> nearest_kind("fedavg", ["fedit", "fedsa"])[:28]
    'write aggregator.kind: fedit'
    >>> nearest_kind("fedrep", ["fedper", "none"])
    'choose one of: fedper, none'
    """
    names = sorted(valid)
    same = [other for other in names if squashed(other) == squashed(name)]
    if same:
        return f"did you mean {same[0]!r}?"
    pointer = method_pointer(name)
    if pointer is not None:
        return f"write {pointer}"
    if squashed(name) in ABSENT_METHODS:
        return f"choose one of: {', '.join(names)}"
    return nearest(name, names, cutoff=TYPO)


def nearest_word(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a word that is none of some choices.

    >>> nearest_word("bf16", ["float32", "bfloat16"]), nearest_word("Adam", ["adamw", "sgd"])
    ("did you mean 'bfloat16'?", "did you mean 'adamw'?")
    """
    names = sorted(valid)
    meant = WORDS.get(squashed(name))
    return f"did you mean {meant!r}?" if meant in names else nearest(name, names)
