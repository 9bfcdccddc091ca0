"""Where checkpoints come from. A source is written as one string:

package:NAME[@VERSION]   an installed Python package that carries a GGUF file
PATH                     a folder of safetensors, or a .gguf file
ORG/NAME[@REVISION]      a Hugging Face id
"""
