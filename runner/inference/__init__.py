"""Inference: predict new sentences with stored systems, write submissions, export to Hugging Face."""
