"""Narrow ResNet-50: the same sixteen bottleneck blocks and keys with fewer channels.

torchvision's `width_per_group` narrows only the middle of a block; here every channel count of
ResNet-50 is divided by the same number, so that a whole experiment runs on a CPU (base width 16:
1.5 M parameters, 6 MB a file).
"""

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet, conv1x1


class NarrowResNet50(ResNet):
    """ResNet-50 whose stem has `base_width` channels instead of 64.

    Input: images [N, 3, H, W], H and W at least 32. Output: logits [N, num_classes]. Modules are
    created and initialised in torchvision's order: with base width 64 and the same seed the
    parameters are those of `torchvision.models.resnet50`.
    """

    def __init__(self, base_width: int, num_classes: int = 1000) -> None:
        nn.Module.__init__(self)
        self.conv1 = nn.Conv2d(3, base_width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = make_stage(base_width, base_width, blocks=3, stride=1)
        self.layer2 = make_stage(base_width * 4, base_width * 2, blocks=4, stride=2)
        self.layer3 = make_stage(base_width * 8, base_width * 4, blocks=6, stride=2)
        self.layer4 = make_stage(base_width * 16, base_width * 8, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(base_width * 32, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def make_stage(channels: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
    """Bottlenecks of 4 * `planes` output channels, the first one with `stride`.

    Input: [N, channels, H, W]. Output: [N, 4 * planes, H / stride, W / stride], rounded up.
    """
    out = planes * Bottleneck.expansion
    downsample = nn.Sequential(conv1x1(channels, out, stride), nn.BatchNorm2d(out))
    first = Bottleneck(channels, planes, stride, downsample)
    return nn.Sequential(first, *(Bottleneck(out, planes) for _ in range(blocks - 1)))
