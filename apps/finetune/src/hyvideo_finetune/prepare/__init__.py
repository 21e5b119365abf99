"""`hyvideo finetune prepare`: from a folder of videos and captions to all that a training needs."""
