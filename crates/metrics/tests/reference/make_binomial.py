"""Binomial tails, Clopper-Pearson bounds and normal quantiles by SciPy, for tests/suite/binomial.rs.

Run once: python make_binomial.py > binomial.json (SciPy's version is in the file).
"""

import json

import scipy
from scipy.stats import beta, binom, binomtest, norm

CASES = [(0, 10), (1, 10), (10, 10), (75, 100), (76, 100), (90, 100), (100, 100), (7, 300), (260, 300), (300, 300), (5000, 10000), (7600, 10000), (9999, 10000)]
tails = [{"k": k, "n": n, "p": p, "tail": float(binom.sf(k - 1, n, p))} for k, n in CASES for p in (0.05, 0.5, 0.75, 0.99)]
bounds = [{"k": k, "n": n, "alpha": a, "bound": float(beta.ppf(a, k, n - k + 1)) if k else 0.0} for k, n in CASES for a in (0.05, 1e-3, 1e-8)]
halves = [{"a": a, "b": b, "p": float(binomtest(a, a + b, 0.5).pvalue)} for a, b in [(0, 3), (5, 5), (6, 5), (40, 60), (990, 10), (0, 1)]]
quantiles = [{"p": p, "x": float(norm.ppf(p))} for p in (1e-300, 1e-12, 0.001, 0.05, 0.25, 0.5, 0.6, 0.75, 0.85, 0.95, 0.99, 0.999999, 1 - 1e-12)]
print(json.dumps({"scipy": scipy.__version__, "tails": tails, "bounds": bounds, "halves": halves, "quantiles": quantiles}, indent=0))
