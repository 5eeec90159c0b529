"""What a browser is shown: documents of what happens in a model, and the page that draws them."""
