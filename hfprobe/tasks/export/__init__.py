"""Write a trained model as ONNX files that answer as the model does, with the preprocessing inside."""
