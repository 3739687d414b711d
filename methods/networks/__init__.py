"""Parts of networks that several methods share."""
