"""The figures of a likelihood in a few lines for a person."""

import math


def describe_likelihood(report: dict) -> str:
    """The report in a few lines for a person."""
    labels = {None: "", "true": ", each under its class", "none": ", without a class"}
    lines = [
        f"{report['examples']} examples of the {report['split']} split"
        f"{labels[report['labels']]}, step {report['step']} of {report['workdir']}"
    ]
    if "bits_per_dim" in report:
        lines.append(
            f"bits per dimension: {_shown(report['bits_per_dim'])}; an upper bound, by uniform "
            "dequantisation"
        )
        if not report["dequantized_training"]:
            lines.append(
                "(the flow was trained without this noise; --config.data.dequantize=True trains "
                "with it)"
            )
    lines.append(f"log-likelihood: {_shown(report['nats'])} nats per example")
    lines.append(
        f"{report['nfe']:.1f} evaluations of the velocity per example, {report['trace']}; "
        f"{report['seconds']:.1f} s, after {report['compile_seconds']:.1f} s of compilation"
    )
    return "\n".join(lines)


def _shown(figure: dict) -> str:
    """Mean and standard error, with as many digits as the error knows."""
    digits = max(0, 1 - math.floor(math.log10(figure["std_error"]))) if figure["std_error"] else 4
    text = f"{figure['mean']:.{digits}f} ± {figure['std_error']:.{digits}f}"
    probes = figure["probe_error"]
    if probes is None:
        return f"{text} (one probe does not tell its own part)"
    return f"{text} ({probes:.2g} of it from the probes)" if probes else text
