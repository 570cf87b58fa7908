# Adds meta-skilld to dstack's layers: ln -s this file into os/yocto/setup.d/ of a dstack checkout.
# dev-setup sources it, as it does nvidia-layer.sh beside it.
LAYERS="$LAYERS \
    $(dirname "$(realpath "${BASH_SOURCE[0]}")")/meta-skilld"
