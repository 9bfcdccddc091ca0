"""Safety that is measured: evaluation of bias and harm, and the filter of corpora."""
