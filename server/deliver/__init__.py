"""Copy a built model repository from a store into a folder, every file checked against its hash.

Invariants
- `files.json` lists the sha256 and size of every file and is read first; what it does not list is not kept;
- files are downloaded to `.delivering` inside the destination, which may be a separate mount, and a model's
  folder is renamed into place only when all of its files are complete and correct;
- a file that exists with the right hash is never fetched again, and an interrupted delivery resumes.

`seal` and `verify` need only the standard library; a delivery also needs obstore.
"""
