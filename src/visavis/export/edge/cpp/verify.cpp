// Similarity of two faces: verify model.onnx a.bin b.bin [threshold]
// a.bin and b.bin are tensors as preprocess.py writes them. Prints the cosine, and with a threshold exits 0 on a match, 1 otherwise.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<float> embed(Ort::Session& session, std::vector<char> data, const std::string& path) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto input = session.GetInputNameAllocated(0, allocator);
  const auto output = session.GetOutputNameAllocated(0, allocator);
  const auto type = session.GetInputTypeInfo(0);
  const auto info = type.GetTensorTypeAndShapeInfo();
  std::vector<int64_t> shape = info.GetShape();
  shape[0] = 1;
  std::size_t bytes = info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 ? 1 : sizeof(float);
  for (const auto side : shape) bytes *= static_cast<std::size_t>(side);
  if (data.size() != bytes)
    throw std::runtime_error(path + ": expected " + std::to_string(bytes) + " bytes, got " + std::to_string(data.size()));
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::Value tensor =
      Ort::Value::CreateTensor(memory, data.data(), data.size(), shape.data(), shape.size(), info.GetElementType());
  const char* inputs[] = {input.get()};
  const char* outputs[] = {output.get()};
  auto result = session.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 1);
  const float* feature = result[0].GetTensorData<float>();
  std::vector<float> unit(feature, feature + result[0].GetTensorTypeAndShapeInfo().GetElementCount());
  double norm = 0;
  for (const float value : unit) norm += static_cast<double>(value) * value;
  norm = std::max(std::sqrt(norm), 1e-12);
  for (float& value : unit) value = static_cast<float>(value / norm);
  return unit;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::cerr << "verify model.onnx a.bin b.bin [threshold]\n";
    return 2;
  }
#ifndef _WIN32
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // nothing is reported to the runtime's maker
#endif
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "visavis");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(environment, argv[1], options);
  const auto a = embed(session, read_file(argv[2]), argv[2]);
  const auto b = embed(session, read_file(argv[3]), argv[3]);
  double similarity = 0;
  for (std::size_t i = 0; i < a.size(); ++i) similarity += static_cast<double>(a[i]) * b[i];
  std::cout.precision(9);
  std::cout << similarity << "\n";
  return argc > 4 && similarity < std::atof(argv[4]) ? 1 : 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
