"""BERT: model, tokenizer, packing of sentences, pretrained weights."""
