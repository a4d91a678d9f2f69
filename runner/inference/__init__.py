"""Inference: stored systems on new sentences, submissions, export to Hugging Face."""
