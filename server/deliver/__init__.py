"""Copy a built model repository from a store into a folder, every file checked against its hash.

Invariants
- `files.json` lists the sha256 and size of every file and is read first; what it does not list is not kept;
- files are gathered in `.delivering` inside the destination, which may be a mount of its own, and a model's
  folder is renamed into place only when all of it is there and right;
- what is there and right is never fetched again: a delivery that was cut off goes on where it stopped.

`seal` and `verify` need the standard library alone, a delivery obstore.
"""
