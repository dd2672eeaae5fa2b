"""The numbers that the paper prints (WACV 2024, Tables 1-4; FACTS 6), to stand beside ours.

Rates are per minute, in 0.75-2.5 Hz for the heart and 0.13-0.5 Hz for the breath, MAPE in per cent; action units are
the mean of the units in per cent; MFLOPs are multiply-adds of a frame (FACTS 1.3).
"""

from __future__ import annotations

HEART = ("HR MAE", "HR RMSE", "HR MAPE", "HR r")
BREATH = ("BR MAE", "BR RMSE", "BR MAPE", "BR r")
UNITS = ("AU F1", "AU accuracy")
COST = ("MFLOPs", "M parameters")
COLUMNS = (*HEART, *BREATH, *UNITS, *COST)

Numbers = dict[str, float]
Table = dict[str, Numbers]


def _row(heart: str = "", breath: str = "", units: str = "", cost: str = "") -> Numbers:
    groups = ((HEART, heart), (BREATH, breath), (UNITS, units), (COST, cost))
    return {
        name: float(number)
        for names, numbers in groups
        if numbers
        for name, number in zip(names, numbers.split("/"), strict=True)
    }


# Of its two halves, "BigSmall without down-sampling" and the rows of Table 2, every one on BP4D+ in three folds.
TABLE1: Table = {
    "small": _row("2.69/6.87/3.09/.86", "3.62/5.18/17.64/.15", cost="3.73/0.70"),
    "big": _row(units="45.3/73.8", cost="451.63/0.78"),
    "bigsmall_full": _row("2.46/6.09/2.81/.88", "3.71/5.28/18.00/.15", "42.5/60.6", "456.03/2.14"),
    "bigsmall_noshift": _row("2.47/6.16/2.81/.88", "3.65/5.21/17.80/.16", "40.3/62.3", "154.01/2.14"),
    "bigsmall_tsm": _row("3.03/7.27/3.50/.85", "3.59/5.20/17.63/.17", "43.0/67.3", "154.01/2.14"),
    "bigsmall": _row("2.38/6.00/2.71/.89", "3.39/5.00/16.65/.21", "43.3/67.4", "154.01/2.14"),
}
TABLE2: Table = {
    "pos": _row("10.40/19.53/9.73/.41"),
    "chrom": _row("5.27/13.28/5.12/.69"),
    "efficientphys": _row("8.86/15.91/9.85/.41"),
    "mttscan": _row("2.86/7.19/3.27/.85", "3.88/5.54/18.88/.11"),
    "deepphys": _row("2.68/6.67/3.07/.86", "3.51/5.16/17.06/.20"),
    "drml": _row(units="44.0/74.9"),
    "alexnet": _row(units="44.2/63.1"),
    "big": TABLE1["big"],
    "bigsmall": TABLE1["bigsmall"],
    "drml, aligned": _row(units="51.3/78.6"),
    "alexnet, aligned": _row(units="52.5/76.5"),
    "jaa, aligned": _row(units="55.8/85.9"),
    "jaa2, aligned": _row(units="57.9/85.6"),
    "big, aligned": _row(units="53.4/79.5"),
    "bigsmall, aligned": _row("2.51/6.10/2.88/.88", "3.93/5.45/18.94/.12", "53.8/80.0"),
    "bigsmall++, aligned": _row("2.51/6.15/2.86/.88", "4.12/5.64/19.62/.10", "54.9/86.4"),
}
TABLE3: dict[str, Table] = {  # trained on BP4D+, tested on
    "pure": {
        "pos": _row("7.89/11.08/10.65/.89"),
        "chrom": _row("7.29/10.33/10.06/.90"),
        "efficientphys": _row("8.07/24.92/11.81/.66"),
        "mttscan": _row("5.99/13.01/7.08/.74"),
        "deepphys": _row("4.73/11.83/5.81/.78"),
        "bigsmall": _row("1.97/6.48/2.56/.93"),
        "bigsmall++": _row("2.87/10.44/3.10/.90"),
    },
    "ubfc_rppg": {
        "pos": _row("2.79/4.69/3.25/.97"),
        "chrom": _row("3.13/5.11/3.68/.97"),
        "efficientphys": _row("9.21/17.11/10.32/.63"),
        "mttscan": _row("12.78/22.43/13.90/.47"),
        "deepphys": _row("3.36/12.86/3.37/.69"),
        "bigsmall": _row("1.03/2.55/1.14/.99"),
        "bigsmall++": _row("1.43/3.10/1.62/.99"),
    },
}
TABLE4: Table = {  # DISFA, 8 action units, fine-tuned
    "drml": _row(units="38.2/81.4"),
    "alexnet": _row(units="33.1/74.1"),
    "jaa": _row(units="36.6/80.9"),
    "jaa2": _row(units="46.9/86.0"),
    "bigsmall": _row(units="42.4/80.5"),
    "bigsmall++": _row(units="42.7/86.7"),
}
