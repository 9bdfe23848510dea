"""Round-trip checks, which compare an imported, exported or merged model with the original model.

The models run in groundup, transformers and llama.cpp.
"""
