"""The programs that the tests of k8s/ run: pinned, checked by hash, under .cache/k8s."""
