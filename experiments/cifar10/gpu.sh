#!/bin/sh
# Pretrain at full size on one GPU, then federate: sh experiments/cifar10/gpu.sh [KEY=VALUE...]
# Without data/models/inception.safetensors (scripts/inception_weights.py) EfficientNet-Lite0 looks at the samples.
set -eu
model=data/models/cifar10-unet-full
[ -f "$model/config.json" ] || python scripts/pretrain_cifar10.py --data data/cifar10 --out "$model" \
    --size full --steps 100000 --batch 128 --lr 2e-4 --warm-up 5000 --ema 0.9999
features=""
[ -f data/models/inception.safetensors ] || features="-s task.features.kind=efficientnet-lite0 -s task.features.weights=null"
sets=""
for change in "$@"; do sets="$sets -s $change"; done
# shellcheck disable=SC2086  # words on purpose
fedsim run experiments/cifar10/gpu.yaml $features $sets
