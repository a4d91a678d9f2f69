"""BERT: model, tokenizer, packed batches, pretrained weights."""
