"""The figures of a likelihood in a few lines for a person."""

import math


def describe_likelihood(report: dict) -> str:
    """The report in a few lines for a person."""
    labels = {None: "", "true": ", each under its class", "none": ", without a class"}
    lines = [
        f"{report['examples']} examples of the {report['split']} split"
        f"{labels[report['labels']]}, step {report['step']} of {report['workdir']}"
    ]
    tokens = "dequantized_training" not in report  # of tokens there is nothing to dequantise
    source, network = ("draws", "network") if tokens else ("probes", "velocity")
    if "bits_per_dim" in report:
        by = "" if tokens else ", by uniform dequantisation"
        shown = _shown(report["bits_per_dim"], source)
        lines.append(f"bits per dimension: {shown}; an upper bound{by}")
        if not tokens and not report["dequantized_training"]:
            lines.append(
                "(the flow was trained without this noise; --config.data.dequantize=True trains "
                "with it)"
            )
    lines.append(f"log-likelihood: {_shown(report['nats'], source)} nats per example")
    lines.append(
        f"{report['nfe']:.1f} evaluations of the {network} per example, {report['trace']}; "
        f"{report['seconds']:.1f} s, after {report['compile_seconds']:.1f} s of compilation"
    )
    return "\n".join(lines)


def _shown(figure: dict, source: str) -> str:
    """Mean and standard error, with as many digits as the error knows."""
    digits = max(0, 1 - math.floor(math.log10(figure["std_error"]))) if figure["std_error"] else 4
    text = f"{figure['mean']:.{digits}f} ± {figure['std_error']:.{digits}f}"
    probes = figure["probe_error"]
    if probes is None:
        return f"{text} (one probe does not tell its own part)"
    return f"{text} ({probes:.2g} of it from the {source})" if probes else text
